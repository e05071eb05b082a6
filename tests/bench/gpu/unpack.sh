#!/usr/bin/env bash
# Put the parts in this folder together and install what is in them: unpack.sh
set -euo pipefail
cd "$(dirname "$0")"
sha256sum --check --quiet SHA256SUMS
cat part-* | tar --extract --gzip --no-same-owner
machine=$(command -v python3 || true)
cat >environment <<EOF
export PATH="$PWD/python/bin:\$PATH"
export LD_LIBRARY_PATH="$PWD/python/lib:$PWD/driver\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
EOF
site=$(. ./environment && python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
(. ./environment && python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
  --no-index --no-deps --no-compile wheels/*.whl)
# CUDA and cuDNN are too large to carry: NVIDIA's wheels of the machine's own Python, if it has them.
nvidia=$([ -n "$machine" ] && "$machine" -c 'import nvidia; print(next(iter(nvidia.__path__)))' 2>/dev/null || true)
if [ -n "$nvidia" ]; then ln -sfn "$nvidia" "$site/nvidia"; echo "CUDA libraries: $nvidia"; else
  echo "the machine's python3 has no NVIDIA wheels: CUDA 13 and cuDNN 9 must be where the dynamic loader looks"
fi
# Triton and its stub ask for the driver by its name without a version.
mkdir -p driver
driver=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p | awk '/libcuda\.so\.1 .*x86-64/ {found = $NF} END {print found}')
for folder in ${LD_LIBRARY_PATH:+${LD_LIBRARY_PATH//:/ }} /usr/local/nvidia/lib64; do
  if [ -z "$driver" ] && [ -e "$folder/libcuda.so.1" ]; then driver=$folder/libcuda.so.1; fi
done
if [ -n "$driver" ]; then ln -sfn "$driver" driver/libcuda.so; else echo "no libcuda.so.1: is there a driver?"; fi
(. ./environment && python3 -c 'import onnxruntime as ort; print(ort.__version__, ort.get_available_providers())')
