#!/usr/bin/env bash
# Makes the environment in which benchmarks/model_speed.py runs LeRobot 0.4.4's pi0 as a peer.
#
#   benchmarks/peers/lerobot.sh [DIRECTORY]      default: ~/.cache/policy_ft/peers/lerobot
#
# About 1.7 GB on disk. torch is the very version of the Python that runs the benchmark (PYTHON,
# default: python), so that two codes are compared and not two torches; a CPU build stays a CPU
# build. LeRobot's declared requirements also hold robot drivers, viewers and trackers: only what
# the import of its pi0 needs is installed. It declares transformers >= 4.57, which its pi0 refuses
# to run with: it needs 4.53.2 with a few changes of openpi's, made by lerobot_child.py at run time.
set -euo pipefail

target=$(realpath -m "${1:-$HOME/.cache/policy_ft/peers/lerobot}")
python=${PYTHON:-python}
torch=$("$python" -c "import torch; print(torch.__version__)")

"$python" -m venv --clear "$target"
pip=("$target/bin/python" -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" "torch==$torch" "transformers==4.53.2" "draccus==0.10.0" "datasets>=4,<5" \
    "accelerate>=1.10,<2" "diffusers>=0.27.2,<0.36" "gymnasium>=1.1.1,<2" "einops>=0.8,<0.9" \
    "deepdiff>=7.0.1,<9" "av>=15,<16" "imageio>=2.34,<3" "jsonlines>=4" "pyserial>=3.5" \
    "termcolor>=2.4" "pillow>=10"
# torchvision's own requirement would replace torch; lerobot's would install everything else
"${pip[@]}" --no-deps torchvision "lerobot==0.4.4" "torchcodec==0.13.*"
# torchcodec, LeRobot's video decoder, looks for FFmpeg's libraries by their plain names: PyAV has them
libraries=$(dirname "$("$target/bin/python" -c "import av; print(av.__file__)")")/../av.libs
for file in "$libraries"/lib{avcodec,avdevice,avfilter,avformat,avutil,swresample,swscale}-*.so.*; do
    name=$(basename "$file")
    version=${name#*.so.}
    ln -sf "$name" "$libraries/${name%%-*}.so.${version%%.*}"
done
cd "$(dirname "$0")/.."
"$target/bin/python" -m peers.lerobot_child --check
echo "ready: $target"
