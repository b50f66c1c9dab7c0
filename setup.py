"""One tree, two packagings: the pip distribution and the ROS package `pcm_policy`."""

from glob import glob

from setuptools import find_packages, setup

share = "share/pcm_policy"
# Of policy.runtime, to compare with.
engines = ["onnx>=1.17,<2", "onnxruntime>=1.20,<2", "onnxscript>=0.2,<1"]

setup(
    name="pcm_policy",
    version="0.1.0",
    description="Diffusion policies sampled by Picard iteration, with a PushT simulator and a ROS 2 node",
    license="MIT",
    author="The pcm_policy developers",
    maintainer="The pcm_policy developers",
    maintainer_email="maintainers@pcm-policy.invalid",
    packages=find_packages(include=["policy*", "pusht_env*", "ros_nodes*", "training*"]),
    package_data={"training.conf": ["*.yaml", "*/*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/pcm_policy"]),
        (share, ["package.xml"]),
        *(
            (f"{share}/{folder}", sorted(glob(f"{folder}/*")))
            for folder in ("checkpoints", "config", "launch")
        ),
    ],
    python_requires=">=3.10,<3.14",
    install_requires=[
        "gymnasium>=1.0,<2",
        "hydra-core>=1.3.2,<2",
        "imageio[ffmpeg]>=2.34,<3",
        "matplotlib>=3.8,<4",
        "numpy>=1.26,<3",
        "openvino>=2025.0,<2027",
        "pygame>=2.5,<3",
        "pymunk>=7.0,<7.4",
        "safetensors>=0.4.3,<1",
        "tensorboard>=2.16,<3",
        "torch>=2.4,<3",
        "tqdm>=4.66,<5",
        "zarr>=2.18,<4",
    ],
    extras_require={
        "engines": engines,
        "test": [
            *engines,
            "diffusers>=0.31,<1",
            "hypothesis>=6.100,<7",
            "mypy>=1.11",
            "pytest>=8,<10",
            "ruff>=0.8",
            "shapely>=2.0,<3",
        ],
    },
    entry_points={
        "console_scripts": [
            "episode_runner = ros_nodes.episodes.episode_runner:main",
            "pcm-benchmark = training.benchmark.run:main",
            "pcm-build-trajectories = training.pcm.build_trajectories:main",
            "pcm-download-demonstrations = training.data.download_demonstrations:main",
            "pcm-estimate-covariance = training.policy.estimate_covariance:main",
            "pcm-evaluate = training.evaluation.evaluate:main",
            "pcm-train-pcm = training.pcm.train_pcm:main",
            "pcm-train-policy = training.policy.train_policy:main",
            "policy_node = ros_nodes.policy_node.node:main",
            "pusht_simulator_node = ros_nodes.simulator.simulator_node:main",
        ],
    },
)
