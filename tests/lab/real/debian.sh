# The Debian family: dpkg, Apache as `apache2`.

install_packages() {
    rm -f /usr/bin/rpm /usr/bin/rpmbuild
    dpkg --force-unsafe-io -i "$@"
}

configure_web() {
    rm -f /etc/apache2/sites-enabled/*
    echo "ServerName $host" >/etc/apache2/conf-enabled/lab.conf
    echo ". $tree/env.sh" >>/etc/apache2/envvars
    echo "LoadModule requesthandler24_module $tree/lib/libnlsrvmod.so" >/etc/apache2/mods-available/nlsrv.load
    echo "Alias /nl $tree/web/" >>/etc/apache2/mods-available/alias.conf
    ln -s "$tree/conf/apache_neolane.conf" /etc/apache2/mods-available/nlsrv.conf
    ln -s ../mods-available/nlsrv.load ../mods-available/nlsrv.conf /etc/apache2/mods-enabled/
}
