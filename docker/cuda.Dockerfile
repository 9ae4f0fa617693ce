# Train on NVIDIA GPUs (needs the NVIDIA container toolkit):
#   docker build -f docker/cuda.Dockerfile -t xlmtrain:cuda .
#   docker run --rm --gpus all --shm-size 8g -v "$PWD/runs:/xlmtrain/runs" xlmtrain:cuda make train
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install --yes --no-install-recommends g++ git make && rm -rf /var/lib/apt/lists/*
WORKDIR /xlmtrain
COPY . .
# torch's wheel brings its CUDA libraries; the host needs the driver alone.
RUN make .venv/ready TORCH=cuda
CMD ["make", "train"]
