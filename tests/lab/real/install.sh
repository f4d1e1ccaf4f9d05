# Makes a machine out of a copy of this one, and installs the old version as its operators did.
set -e
cd "$(dirname "$0")"
host=$(cat /var/lib/lab/name)
tree=$(cat tree)
hostname "$host"
echo "$host" >/etc/hostname
cp hosts /etc/hosts
[ ! -s os-release ] || { rm -f /etc/os-release; cp os-release /etc/os-release; }
# Nothing of the machine that this is a copy of: no keys, no other accounts' rights.
# Another SSH server that is installed on the machine (lsh) leaves word that OpenSSH's is not to run.
rm -f /etc/ssh/ssh_host_* /etc/ssh/sshd_config.d/* /etc/sudoers.d/* /etc/ssh/sshd_not_to_be_run
getent passwd ops >/dev/null || useradd --create-home --shell /bin/bash ops
chpasswd <password
install -d -o ops -g ops -m 700 /home/ops /home/ops/.ssh
install -o ops -g ops -m 600 authorized_keys /home/ops/.ssh/authorized_keys
printf 'root ALL=(ALL:ALL) ALL\nops ALL=(ALL:ALL) ALL\n' >/etc/sudoers
chmod 440 /etc/sudoers
install -m 600 host_key /etc/ssh/ssh_host_ed25519_key
printf '%s\n' 'HostKey /etc/ssh/ssh_host_ed25519_key' 'UsePAM yes' 'PasswordAuthentication no' 'KbdInteractiveAuthentication no' \
    'PrintMotd no' 'AcceptEnv LANG LC_*' 'Subsystem sftp /usr/lib/openssh/sftp-server' >/etc/ssh/sshd_config
mkdir -p /run/sshd /var/backups/campaign
# Wrappers that note what the real programs do.
ln -s /run/lab/bin/pg_dump /run/lab/bin/pg_restore /usr/local/bin/
if [ -e database.sql ]; then
    rm -rf /etc/postgresql/* /var/lib/postgresql/* /var/log/postgresql/*
    install -d -o postgres -g postgres -m 2775 /run/postgresql
    version=$(ls /usr/lib/postgresql | sort -n | tail -1)
    pg_createcluster "$version" campaign --port 5432 --start-conf manual --locale C.UTF-8 -- --auth-host=scram-sha-256 --no-sync
    conf=/etc/postgresql/$version/campaign
    echo "host all all $(cat network) scram-sha-256" >>$conf/pg_hba.conf
    printf "listen_addresses = '*'\nfsync = off\nshared_buffers = 16MB\n" >>$conf/postgresql.conf
    pg_ctlcluster "$version" campaign start
    su postgres -c 'psql -X -q -v ON_ERROR_STOP=1 -d postgres' <database.sql
fi
# What is another way in each family of systems: `install_packages FILE..`, `configure_web`.
. ./family
install_packages $(cat packages)
[ ! -e tracking ] || configure_web
if [ -d /run/systemd/system ]; then systemctl start ssh; else /usr/sbin/sshd; fi
