# docker build -t cortexgen . && docker run --rm -u "$(id -u):$(id -g)" -v "$PWD:/data" cortexgen register image.nii.gz out
FROM python:3.12.11-slim-bookworm

# The bounds of pyproject.toml, from PyTorch's index of builds without CUDA.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch>=2.8,<2.14"

COPY pyproject.toml README.md LICENSE CITATION.cff /src/
COPY configs /src/configs
COPY cortexgen /src/cortexgen
RUN pip install --no-cache-dir "/src[preprocess,bids]" && rm -rf /src

# Caches go where any user may write; the container's root is nobody's.
RUN useradd --create-home --uid 1000 cortexgen && mkdir -p /data /cache && chmod 1777 /data /cache
ENV HOME=/cache XDG_CACHE_HOME=/cache MPLCONFIGDIR=/cache/matplotlib
USER cortexgen
WORKDIR /data
ENTRYPOINT ["cortexgen"]
CMD ["--help"]
