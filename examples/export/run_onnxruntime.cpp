// Run a policy of pcm-export with ONNX Runtime's C++ interface; see docs/export.md for how to compile it.
#include <onnxruntime_cxx_api.h>

#include <cstdio>
#include <random>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: run_onnxruntime policy.onnx\n"), 2;
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "policy");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  Ort::Session session(env, argv[1], options);

  std::mt19937 generator(0);
  std::normal_distribution<float> normal;
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  std::vector<Ort::AllocatedStringPtr> names;  // keeps the inputs' names
  std::vector<const char*> inputs, outputs{"chunk", "residual"};
  std::vector<std::vector<float>> numbers;
  std::vector<Ort::Value> values;
  for (size_t i = 0; i < session.GetInputCount(); ++i) {
    names.push_back(session.GetInputNameAllocated(i, Ort::AllocatorWithDefaultOptions()));
    inputs.push_back(names.back().get());
    auto shape = session.GetInputTypeInfo(i).GetTensorTypeAndShapeInfo().GetShape();
    shape[0] = 1;  // the batch, of any size
    size_t count = 1;
    for (auto size : shape) count *= size;
    numbers.emplace_back(count, 250.0f);  // input 0: the newest observations, oldest first, in the task's units
    if (i > 0) for (auto& number : numbers.back()) number = normal(generator);  // noise, drawn anew for each chunk
    values.push_back(Ort::Value::CreateTensor<float>(memory, numbers[i].data(), count, shape.data(), shape.size()));
  }
  const auto found = session.Run({}, inputs.data(), values.data(), values.size(), outputs.data(), outputs.size());
  const auto shape = found[0].GetTensorTypeAndShapeInfo().GetShape();
  for (int64_t step = 0; step < shape[1]; ++step) {
    for (int64_t a = 0; a < shape[2]; ++a) std::printf("%8.2f", found[0].GetTensorData<float>()[step * shape[2] + a]);
    std::puts("");
  }
}
