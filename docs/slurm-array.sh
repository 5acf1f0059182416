#!/bin/bash
# Stage one as a Slurm array, a shard a job; give the same command again for jobs that were ended.
#   sbatch --array=1-8 docs/slurm-array.sh clips.csv features.h5 --profile pretrained
# and, when all are done:
#   mvemo cache merge features.h5.shards --out features.h5
#SBATCH --job-name=mvemo
#SBATCH --array=1-8
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=08:00:00
#SBATCH --requeue
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 MANIFEST FEATURES [option of mvemo extract ...]" >&2
    exit 2
fi
manifest=$1 features=$2
shift 2
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
# Slurm sends SIGTERM before it kills: by `exec` it comes to mvemo, which ends with all kept.
exec mvemo extract "$manifest" --out "$features" --work "${WORK:-work}" \
    --shard "${SLURM_ARRAY_TASK_ID:?run it as an array: sbatch --array=1-8}/${SLURM_ARRAY_TASK_COUNT:?}" \
    --set extract.workers="$OMP_NUM_THREADS" "$@"
