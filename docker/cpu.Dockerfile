# Train and test on a CPU:
#   docker build -f docker/cpu.Dockerfile -t xlmtrain:cpu .
#   docker run --rm -v "$PWD/runs:/xlmtrain/runs" xlmtrain:cpu make train
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install --yes --no-install-recommends g++ git make && rm -rf /var/lib/apt/lists/*
WORKDIR /xlmtrain
COPY . .
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN make .venv/ready TORCH=cpu
CMD ["make", "train"]
