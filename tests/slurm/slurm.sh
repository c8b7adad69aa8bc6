#!/usr/bin/env bash
# This script runs a real Slurm with one node on loopback for the tests, on Debian or Ubuntu with root and apt.
#
#   slurm.sh install      installs the packages with apt-get
#   slurm.sh start DIR    starts munged, MariaDB, slurmdbd, slurmctld and slurmd, with all their state in DIR
#   slurm.sh stop DIR     stops the daemons that start has started, and no others
#
# It needs no systemd. The node claims 8 CPUs, 64 GB and two GPUs (null devices). Memory limits are enforced, by cgroup
# v1 where it exists (a job ends as OUT_OF_MEMORY), by polling elsewhere (FAILED). Accounting is on, as on most
# clusters: root has its default account, and another account named lab.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
CPUS=8
MEMORY=64000
GPUS=2
HOST=$(hostname -s)
# The only file outside DIR. The executor's job step unsets SLURM_CONF, so srun reads its config here.
LINK=/etc/slurm/slurm.conf
D=${2:-}

die() { echo "slurm.sh: $*" >&2; exit 1; }

install_packages() {
  for program in munged mariadbd slurmdbd slurmctld slurmd sbatch; do
    command -v $program >/dev/null && continue
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      slurmctld slurmd slurmdbd slurm-client munge mariadb-server >/dev/null
    return
  done
}

alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

wait_for() { # wait_for SECONDS COMMAND...
  local n=$(($1 * 5)); shift
  for _ in $(seq $n); do "$@" >/dev/null 2>&1 && return 0; sleep 0.2; done
  return 1
}

write_conf() {
  mkdir -p "$D"/{etc,state,spool,log,run,dev}
  chmod 755 "$D"
  mkdir -p -m 700 "$D/munge"
  (umask 077; head -c 1024 /dev/urandom >"$D/munge/key")
  cat >"$D/etc/slurm.conf" <<CONF
ClusterName=tests
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$D/run/munge.socket
CredType=cred/munge
MailProg=/bin/true
MpiDefault=none
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool
SlurmctldPidFile=$D/run/slurmctld.pid
SlurmdPidFile=$D/run/slurmd.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd.log
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,defer_batch
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStorageEnforce=associations
AccountingStorageTRES=gres/gpu
# The connection to slurmdbd ignores AuthInfo and looks for the socket of munge here.
AccountingStoragePass=$D/run/munge.socket
GresTypes=gpu
ReturnToService=2
# The tests also read finished jobs from squeue and scontrol, which keep them for this time.
MinJobAge=1800
KillWait=2
SlurmdParameters=config_overrides
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=$CPUS Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEMORY Gres=gpu:$GPUS State=UNKNOWN
PartitionName=cpu Nodes=$HOST Default=YES MaxTime=1-0 DefaultTime=10 DefMemPerCPU=500 State=UP
PartitionName=gpu Nodes=$HOST Default=NO MaxTime=2-0 DefaultTime=10 DefMemPerCPU=500 State=UP
CONF
  if [ -w /sys/fs/cgroup/memory/tasks ]; then
    printf '%s\n' ProctrackType=proctrack/cgroup TaskPlugin=task/cgroup >>"$D/etc/slurm.conf"
    printf '%s\n' CgroupPlugin=cgroup/v1 CgroupMountpoint=/sys/fs/cgroup CgroupAutomount=no \
      ConstrainRAMSpace=yes ConstrainSwapSpace=yes AllowedSwapSpace=0 >"$D/etc/cgroup.conf"
  else
    printf '%s\n' ProctrackType=proctrack/linuxproc TaskPlugin=task/none \
      JobAcctGatherParams=OverMemoryKill >>"$D/etc/slurm.conf"
  fi
  (umask 077; cat >"$D/etc/slurmdbd.conf") <<CONF
AuthType=auth/munge
AuthInfo=socket=$D/run/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
SlurmUser=root
LogFile=$D/log/slurmdbd.log
PidFile=$D/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
CONF
  # Slurm 22.05 drops a GPU that has no device file, and drops the node with it.
  echo AutoDetect=off >"$D/etc/gres.conf"
  for i in $(seq 0 $((GPUS - 1))); do
    [ -e "$D/dev/gpu$i" ] || mknod -m 666 "$D/dev/gpu$i" c 1 3 2>/dev/null || : >"$D/dev/gpu$i"
    echo "NodeName=$HOST Name=gpu File=$D/dev/gpu$i" >>"$D/etc/gres.conf"
  done
}

start_accounting() {
  export MYSQL_UNIX_PORT="$D/run/mariadb.socket"
  mariadb-install-db --no-defaults --user=root --datadir="$D/mariadb" --auth-root-authentication-method=socket \
    >"$D/log/mariadb.log" 2>&1 || die "the database could not be created, see $D/log/mariadb.log"
  mariadbd --no-defaults --user=root --datadir="$D/mariadb" --skip-networking --socket="$MYSQL_UNIX_PORT" \
    --innodb-buffer-pool-size=64M </dev/null >>"$D/log/mariadb.log" 2>&1 &
  echo $! >"$D/run/mariadb.pid"
  wait_for 60 mariadb-admin --no-defaults --socket="$MYSQL_UNIX_PORT" ping || die "mariadbd did not come up, see $D/log/mariadb.log"
  slurmdbd
  wait_for 60 sacctmgr -n list cluster || die "slurmdbd did not come up, see $D/log/slurmdbd.log"
  sacctmgr -i add cluster tests >/dev/null
  sacctmgr -i add account lab >/dev/null
  sacctmgr -i add user root account=lab >/dev/null
}

start() {
  [ "$(id -u)" = 0 ] || die "needs root"
  getent hosts "$HOST" >/dev/null || die "add '127.0.0.1 $HOST' to /etc/hosts"
  [ ! -e $LINK ] || die "$LINK exists: this machine has a Slurm of its own, or another run of these tests"
  write_conf
  mkdir -p "${LINK%/*}"
  ln -sfn "$D/etc/slurm.conf" $LINK
  export SLURM_CONF="$D/etc/slurm.conf"
  munged --force --key-file="$D/munge/key" --socket="$D/run/munge.socket" --pid-file="$D/run/munged.pid" \
    --log-file="$D/log/munged.log" --seed-file="$D/munge/seed" --num-threads=2
  wait_for 10 munge -S "$D/run/munge.socket" -n || die "munged did not come up, see $D/log/munged.log"
  start_accounting
  slurmctld
  wait_for 20 scontrol ping || die "slurmctld did not come up, see $D/log/slurmctld.log"
  slurmd
  wait_for 30 sh -c "sinfo -h -o %T | grep -qE 'idle|mixed|allocated'" || die "the node is not idle: $(sinfo -h -R)"
  sinfo -N -o '%N %T %c cpus %m MB %G %P'
}

stop() {
  if alive "$D/run/slurmctld.pid"; then
    SLURM_CONF="$D/etc/slurm.conf" timeout 10 scancel --user=root || true
    SLURM_CONF="$D/etc/slurm.conf" wait_for 10 sh -c "[ -z \"\$(squeue -h -t running,completing)\" ]" || true
  fi
  for daemon in slurmd slurmctld slurmdbd mariadb munged; do
    file="$D/run/$daemon.pid"
    if alive "$file"; then
      pid=$(cat "$file")
      kill "$pid"
      wait_for 10 sh -c "! kill -0 $pid" || kill -9 "$pid" || true
    fi
    rm -f "$file"
  done
  find /sys/fs/cgroup/*/"slurm_$HOST" -depth -type d -exec rmdir {} + 2>/dev/null || true
  if [ -L $LINK ] && [ "$(readlink $LINK)" = "$D/etc/slurm.conf" ]; then rm $LINK; fi
}

case ${1:-} in
install) install_packages ;;
start) start ;;
stop) stop ;;
*) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
