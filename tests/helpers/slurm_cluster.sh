#!/usr/bin/env bash
# A one-node Slurm for tests: munged, slurmctld and slurmd on this machine, everything under one directory.
#   cluster.sh start DIR   starts it, waits until the node is idle; the last line printed is `export SLURM_CONF=...`
#   cluster.sh stop DIR    cancels its jobs and takes it all down; harmless when nothing runs
# Needs Slurm's programs; as root on Debian `start` installs them, elsewhere it exits with code 3.
# DIR/bin holds a stand-in for sacct, which otherwise needs an accounting database: put it first on PATH.
# PROCTRACK=cgroup (as root, in the environment of `start`) signals as most real clusters do: `scancel --signal=USR2 ID`
# reaches the tasks alone; the default, linuxproc, needs nothing and signals the tasks' descendants too.
# Each cluster takes free ports and its own DIR, so several can run side by side (but only one with PROCTRACK=cgroup).
set -euo pipefail

[[ ${1:-} =~ ^(start|stop)$ && -n ${2:-} ]] || { echo "usage: cluster.sh start|stop DIR" >&2; exit 2; }
dir=$(realpath -m "$2")
export PATH=$PATH:/usr/sbin:/sbin SLURM_CONF=$dir/slurm.conf
unset SLURM_JOB_ID SLURM_JOBID

daemon() { # prints the process id of this cluster's daemon $1, if it runs (its pid file may be stale, or it a zombie)
    local pid; pid=$(cat "$dir/run/$1.pid" 2>/dev/null) && [[ $(readlink "/proc/$pid/exe") == */"$1"* ]] && echo "$pid"
}
stepds() { # prints the process ids of this cluster's slurmstepd's: those with a file open under DIR
    local pid; for pid in $(pgrep -x slurmstepd || true); do
        ls -l "/proc/$pid/fd" 2>/dev/null | grep -qF -- "-> $dir/" && echo "$pid"; done; true
}
stop() {
    local name pid
    if daemon slurmctld >/dev/null; then # this ends the jobs' processes too, which nothing does once slurmd is gone
        timeout 10 scancel --user="$(id -un)" >&2 || true
        for _ in {1..100}; do [[ -n $(timeout 10 squeue -h || true) || -n $(stepds) ]] || break; sleep 0.2; done
    fi
    for name in slurmd slurmctld munged; do pid=$(daemon $name) && kill "$pid" 2>/dev/null; done || true
    for _ in {1..100}; do # slurmstepd's outlive slurmd, so they are killed again until all are gone
        for pid in $(stepds); do kill -9 "$pid" 2>/dev/null || true; done
        daemon slurmd || daemon slurmctld || daemon munged || [[ -n $(stepds) ]] || return 0
        sleep 0.2
    done >/dev/null
    echo "cluster.sh: some daemons under $dir did not end" >&2; return 1
}
if [[ $1 == stop ]]; then stop; exit; fi

[[ $dir =~ ^[A-Za-z0-9_./-]{1,80}$ ]] || { echo "cluster.sh: DIR must be short (a socket lies in it), of plain characters" >&2; exit 2; }
[[ -f $SLURM_CONF || -z $(ls -A "$dir" 2>/dev/null) ]] || { echo "cluster.sh: $dir holds other files" >&2; exit 2; }
missing() { local p; for p in munged slurmctld slurmd sbatch srun scontrol; do command -v $p >/dev/null || return 0; done; return 1; }
install() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurm-wlm munge slurm-wlm-basic-plugins >&2; }
if missing && [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then install || { apt-get update >&2 && install; } || true; hash -r; fi
if missing; then
    echo "cluster.sh: Slurm is missing; install it and munge (on Debian slurm-wlm, slurm-wlm-basic-plugins and munge)." >&2; exit 3
fi
stop
mkdir -p "$dir"/{bin,run,log,state,spool,secret}; chmod 755 "$dir" "$dir/run"; chmod 700 "$dir/secret"
rm -rf "$dir"/{state,spool}/* "$dir"/log/* "$dir"/secret/*
(umask 077; head -c 1024 /dev/urandom >"$dir/secret/key")
free_port() { local p; while p=$((20000 + RANDOM % 10000)); (: <>"/dev/tcp/127.0.0.1/$p") 2>/dev/null; do :; done; echo $p; }
host=$(hostname -s); cpus=$(nproc); port=$(free_port); while node_port=$(free_port); [[ $node_port == "$port" ]]; do :; done
# cred_expire (seconds, 5 or more, normally 120) is also how long `scontrol requeue` keeps a job from starting
# again (reason BeginTime). `scontrol update JobId=ID StartTime=now` releases one such job at once.
# A step whose output is held open by a stray process counts as unkillable, which after the timeout drains the node.
# config_overrides lets the node offer two CPUs where the machine has one; FORCE lets 8 jobs share each CPU.
cat >"$SLURM_CONF" <<EOF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=$port
SlurmdPort=$node_port
AuthType=auth/munge
AuthInfo=socket=$dir/run/munge.socket,cred_expire=10
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.log
MpiDefault=none
ProctrackType=proctrack/${PROCTRACK:-linuxproc}
TaskPlugin=task/none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=5
KillOnBadExit=1
UnkillableStepTimeout=600
MinJobAge=3600
NodeName=$host NodeAddr=127.0.0.1 CPUs=$((cpus > 2 ? cpus : 2)) RealMemory=$(awk '/^MemTotal/{print int($2 / 1024 * 0.9)}' /proc/meminfo) State=UNKNOWN
PartitionName=local Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8
EOF
echo "IgnoreSystemd=yes" >"$dir/cgroup.conf" # used with PROCTRACK=cgroup only
cat >"$dir/bin/sacct" <<'EOF'
#!/usr/bin/env bash
# Stand-in for `sacct -o JobID,State,NodeList --parsable2 -j ID [-j ID ...]`, the one call submitit makes.
echo "JobID|State|NodeList"
while (($#)); do
    if [[ $1 == -j ]]; then
        scontrol -o show job "$2" 2>/dev/null | sed -nE 's/ ArrayTaskId=([0-9]*[^0-9 ][^ ]*)/ ArrayTaskId=[\1]/
            s/.*ArrayJobId=([0-9]+) ArrayTaskId=([^ ]+) .*JobState=([A-Z_]+).* NodeList=([^ ]*).*/\1_\2|\3|\4/p;t
            s/^JobId=([0-9]+) .*JobState=([A-Z_]+).* NodeList=([^ ]*).*/\1|\2|\3/p'
    fi
    shift
done
EOF
chmod 755 "$dir/bin/sacct"
{ # the daemons must not keep the caller's output open
    munged --force --key-file="$dir/secret/key" --seed-file="$dir/secret/seed" --socket="$dir/run/munge.socket" \
        --pid-file="$dir/run/munged.pid" --log-file="$dir/log/munged.log" && slurmctld -c && slurmd -c
} >"$dir/log/start.log" 2>&1 </dev/null || true
for _ in {1..100}; do [[ $(sinfo -h -o %T 2>/dev/null) == idle ]] && break; sleep 0.2; done
if [[ $(sinfo -h -o %T 2>/dev/null) != idle ]]; then
    echo "cluster.sh: the node did not become idle; what was logged under $dir/log ends:" >&2
    tail -n 15 "$dir"/log/* >&2; stop; exit 1
fi
echo "export SLURM_CONF=$SLURM_CONF"
