"""A policy for a fleet: Ray Serve gathers the requests of many robots into batches of one exported graph.

python examples/fleet/serve_policy.py outputs/fleet/policy.xml      # then robots take checkpoint:=http://HOST:8000/
"""

import sys

import numpy as np
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from policy.exported import open_exported
from policy.exported.wire import TAG_HEADER, from_bytes, policy_tag, to_bytes


class FleetPolicy:
    def __init__(self, file: str, threads: int) -> None:
        self.policy = open_exported(file, threads=threads)
        self.text = self.policy.description.to_json()
        self.headers = {TAG_HEADER: policy_tag(self.text)}

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.005)
    async def evaluate(self, calls: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        together = {name: np.concatenate([call[name] for call in calls]) for name in calls[0]}
        ends = np.cumsum([len(call["observations"]) for call in calls])[:-1]
        outputs = [np.split(output, ends) for output in self.policy.run(together)]
        names = [tensor.name for tensor in self.policy.description.outputs]
        return [dict(zip(names, parts, strict=True)) for parts in zip(*outputs, strict=True)]

    async def __call__(self, request: Request) -> Response:
        if request.method == "GET":
            return Response(self.text, headers=self.headers, media_type="application/json")
        try:
            inputs = from_bytes(await request.body(), self.policy.description.inputs)
        except ValueError as error:
            return Response(str(error), status_code=400)
        return Response(to_bytes(await self.evaluate(inputs)), headers=self.headers)


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1"})  # 0.0.0.0 for robots on other machines
    deployment = serve.deployment(max_ongoing_requests=256)(FleetPolicy)
    serve.run(deployment.bind(sys.argv[1], threads=1), blocking=True)
