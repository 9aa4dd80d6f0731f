from setuptools import find_packages, setup

setup(
    name="fooddit",
    version="0.1.0",
    description="A JAX training stack for dish-image diffusion transformers",
    python_requires=">=3.11",
    packages=find_packages(include=["fooddit", "fooddit.*"]),
    package_data={"fooddit.models": ["pretrained/*.safetensors"]},
    install_requires=[
        "absl-py>=2.1",
        "array-record>=0.8.6",
        "etils[epath]>=1.12",
        "flax>=0.12.8",
        "grain>=0.2.18",
        "jax>=0.10.2,<0.13",
        "jaxtyping>=0.3",
        "ml_collections>=1.1",
        "msgpack>=1.1",
        "numpy>=2.0",
        "opencv-python-headless>=4.10",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12.8,<0.13",
        "pillow>=11",
        "safetensors>=0.5",
        "simplejpeg>=1.8",
        "tensorboardX>=2.6",
        "tokenizers>=0.21",
        "tqdm>=4.66",
    ],
    extras_require={
        "tpu": ["jax[tpu]"],
        "cuda": ["jax[cuda13]"],
        # tensorflow-datasets needs importlib_resources and does not say so.
        "prep": ["importlib_resources>=6", "pyarrow>=18", "tensorflow-datasets>=4.9.10"],
        "test": ["beartype>=0.20", "hypothesis>=6.120", "pytest>=8", "pytest-xdist>=3.6", "ruff>=0.9"],
    },
    entry_points={"console_scripts": ["fooddit=fooddit.cli:main"]},
)
