# The RHEL family: rpm with a database of its own, Apache as `httpd` where the family has it.

# Nothing of a directory is to be seen any more.
hide() {
    mount -t tmpfs -o mode=755,size=64k hidden "$1"
}

install_packages() {
    rm -f /usr/bin/dpkg* /usr/bin/apt* /usr/sbin/update-rc.d /etc/debian_version
    hide /var/lib/dpkg
    mkdir -p /etc/rpm /var/lib/rpm
    echo '%_dbpath /var/lib/rpm' >/etc/rpm/macros
    rpm -Uvh "$@"
}

configure_web() {
    cp /usr/sbin/apache2 /usr/sbin/httpd
    rm -f /usr/sbin/apache2* /usr/sbin/a2* /etc/init.d/apache2
    hide /etc/apache2
    getent passwd apache >/dev/null || useradd --system --user-group --no-create-home --home-dir /usr/share/httpd apache
    mkdir -p /etc/httpd/conf /etc/httpd/conf.d /etc/httpd/conf.modules.d /etc/sysconfig /var/log/httpd
    ln -s /usr/lib/apache2/modules /etc/httpd/modules
    for module in mpm_event authz_core alias; do
        echo "LoadModule ${module}_module modules/mod_$module.so"
    done >/etc/httpd/conf.modules.d/00-base.conf
    printf '%s\n' 'ServerRoot /etc/httpd' 'Listen 80' "ServerName $host" 'User apache' 'Group apache' 'PidFile /run/httpd/httpd.pid' \
        'ErrorLog /var/log/httpd/error_log' 'Include conf.modules.d/*.conf' 'IncludeOptional conf.d/*.conf' >/etc/httpd/conf/httpd.conf
    printf '%s\n' "LoadModule requesthandler24_module $tree/lib/libnlsrvmod.so" "Alias /nl $tree/web/" \
        "Include $tree/conf/apache_neolane.conf" >/etc/httpd/conf.d/nlsrv.conf
    echo "LD_LIBRARY_PATH=$tree/lib" >/etc/sysconfig/httpd
    install -m 755 httpd.init /etc/init.d/httpd
}
