"""One tree, two packagings: the pip distribution and the ROS package `pcm_policy`."""

from glob import glob

from setuptools import find_packages, setup

share = "share/pcm_policy"

# What a robot needs: the policy and its node. OpenVINO is part of it, since engine=auto is OpenVINO on a CPU:
# without it, a chunk would take a robot without a GPU longer than the documents say.
robot = [
    "numpy>=1.26,<3",
    "openvino>=2025.0,<2027",
    "safetensors>=0.4.3,<1",
    "torch>=2.4,<3",
]
# A robot with cameras that send JPEG or PNG.
camera = [
    "pillow>=10.3,<14",
]
# pusht_env, and the simulator node.
sim = [
    "gymnasium>=1.0,<2",
    "pygame>=2.5,<3",
    "pymunk>=7.0,<7.4",
]
# Every command but pcm-benchmark, and the episode runner: policies are trained and evaluated in the simulator.
train = [
    *sim,
    "filelock>=3.16,<5",
    "hydra-core>=1.3.2,<2",
    "imageio[ffmpeg]>=2.34,<3",
    "matplotlib>=3.8,<4",
    "omegaconf>=2.3,<3",
    "requests>=2.32,<3",
    "scipy>=1.15,<2",
    "tensorboard>=2.16,<3",
    "tqdm>=4.66,<5",
    "zarr>=2.18,<4",
]
# pcm-import-demonstrations.
importing = [
    *train,
    *camera,
    "av>=13,<19",
    "h5py>=3.11,<4",
    "pyarrow>=17,<27",
    "rosbags>=0.10.5,<0.12",
]
# pcm-benchmark.
reports = [
    *train,
    "pandas>=2.2,<4",
    "tabulate>=0.9,<1",
]
# Launchers of sweeps (-m hydra/launcher=joblib, or ray).
sweep = [
    *train,
    "hydra-joblib-launcher>=1.2,<2",
    "hydra-ray-launcher>=1.2,<2",
    "ray>=2.9,<3",
]
# The other engines of policy.runtime, to compare with.
engines = [
    "onnx>=1.17,<2",
    "onnxruntime>=1.20,<2",
    "onnxscript>=0.2,<1",
]
# pcm-export.
export = [
    *train,
    *engines,
    "nncf>=3.0,<4",
]
test = [
    *reports,
    *export,
    *importing,
    "diffusers>=0.31,<1",
    "hydra-joblib-launcher>=1.2,<2",
    "hypothesis>=6.100,<7",
    "mypy>=1.11",
    # Not 9.2, with which the groups of pytest-xdist do nothing: a file's tests share fixtures by them (its issue 1386).
    "pytest>=8,<9.2",
    "pytest-xdist>=3.6,<4",
    "ruff>=0.8",
    "shapely>=2.0,<3",
    "transformers>=5,<6",  # an independent ResNet
]

setup(
    name="pcm_policy",
    version="0.1.0",
    description="Diffusion policies sampled by Picard iteration, with a PushT simulator and a ROS 2 node",
    license="MIT",
    author="The pcm_policy developers",
    maintainer="The pcm_policy developers",
    maintainer_email="maintainers@pcm-policy.invalid",
    packages=find_packages(include=["policy*", "pusht_env*", "ros_nodes*", "training*"]),
    package_data={
        **{package: ["py.typed"] for package in ("policy", "pusht_env", "ros_nodes", "training")},
        "training.conf": ["*.yaml", "*/*.yaml"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/pcm_policy"]),
        (share, ["package.xml"]),
        *(
            (f"{share}/{folder}", sorted(glob(f"{folder}/*.*")))  # not __pycache__
            for folder in ("checkpoints", "config", "launch")
        ),
    ],
    python_requires=">=3.10,<3.14",
    install_requires=robot,
    extras_require={
        "camera": camera,
        "sim": sim,
        "train": train,
        "import": importing,
        "reports": reports,
        "sweep": sweep,
        "engines": engines,
        "export": export,
        "test": test,
    },
    entry_points={
        "console_scripts": [
            "episode_runner = ros_nodes.episodes.episode_runner:main",
            "pcm-benchmark = training.benchmark.run:main",
            "pcm-build-trajectories = training.pcm.build_trajectories:main",
            "pcm-demonstrate-pusht = training.pusht.demonstrate_pusht:main",
            "pcm-download-demonstrations = training.data.download_demonstrations:main",
            "pcm-estimate-covariance = training.policy.estimate_covariance:main",
            "pcm-export = training.export.export_policy:main",
            "pcm-evaluate = training.evaluation.evaluate:main",
            "pcm-import-demonstrations = training.importing.import_demonstrations:main",
            "pcm-results = training.benchmark.results:main",
            "pcm-train-pcm = training.pcm.train_pcm:main",
            "pcm-train-policy = training.policy.train_policy:main",
            "path_overlay = ros_nodes.overlay.path_overlay:main",
            "policy_node = ros_nodes.policy_node.node:main",
            "pusht_simulator_node = ros_nodes.simulator.simulator_node:main",
            "simulator_node = ros_nodes.simulator.environment_simulator_node:main",
            "record_keys = ros_nodes.recorder.record_keys:main",
            "recorder_node = ros_nodes.recorder.recorder_node:main",
        ],
    },
)
