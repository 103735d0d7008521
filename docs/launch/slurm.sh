#!/bin/bash
#SBATCH --job-name=arena-tune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
# One task a node starts that node's processes; they meet at the first node. Home and data are on
# a disk that all nodes see. A job that was cut off goes on where it was when it is submitted again.
set -euo pipefail
export MAIN_ADDRESS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export NUM_PROCESSES=$((SLURM_NNODES * SLURM_GPUS_ON_NODE))
srun bash -c 'accelerate launch --config_file docs/launch/ddp.yaml \
    --num_machines "$SLURM_NNODES" --num_processes "$NUM_PROCESSES" \
    --machine_rank "$SLURM_NODEID" --main_process_ip "$MAIN_ADDRESS" --main_process_port 29500 \
    -m arena.cli tune --base me/base --data mine.jsonl --method lora --name mine --home workspace'
