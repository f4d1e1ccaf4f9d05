# Starts what runs on a host before anybody touches it.
set -e
seed=$(dirname "$0")
service=$(cat "$seed/service")
web=$(cat "$seed/tracking" 2>/dev/null || true)
start() { if [ -d /run/systemd/system ]; then systemctl start "$1"; else "/etc/init.d/$1" start; fi; }
rm -r "$seed"
start "$service"
[ -z "$web" ] || start "$web"
