#!/bin/bash
# Rendered by launch/slurm.py, which says why it is so.
#SBATCH --job-name=stage1
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=stage1-%j.log
#SBATCH --signal=TERM@120
#SBATCH --time=1-00:00:00

export JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7

ended=0
trap 'ended=1' TERM
code=0
srun --kill-on-bad-exit=0 --wait=120 --cpu-bind=none python main.py --config=configs/stage1.py '--config.data.source=gs://dishes/菜谱 records' --config.mesh.fsdp=8 --config.data.batch_size=512 --workdir=/shared/runs/stage1 --distributed=auto || code=$?
if (( code == 0 )); then
  exit 0
fi
printf 'launch: the run ended with '
python -c 'import sys; from launch.exit_codes import explain; print(explain(int(sys.argv[1])))' "$code"
restarts=${SLURM_RESTART_COUNT:-0}
if (( ended )); then
  echo "launch: Slurm ends this job; it is not put back into the queue from here"
elif (( code >= 1 && code <= 41 )); then
  echo "launch: not started again: mend it, then submit it again"
elif (( restarts >= 100 )); then
  echo "launch: started again $restarts times, given up"
else
  echo "launch: restart $(( restarts + 1 )) of at most 100"
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
