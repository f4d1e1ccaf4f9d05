//! Closed sets of words.

use super::BackupBy;
use crate::legacy::OldAlgorithm;
use crate::model::{BecomeMethod, Engine, InitSystem, InstanceKind, KeepOf, SourceVersion, Topology, WebServer};
use crate::problem::Kind;
use crate::read::Word;

impl Word for Topology {
    const WHAT: &'static str = "topology";
    const ALL: &'static [(&'static str, Self)] = &[
        ("standalone", Self::Standalone),
        ("standard", Self::Standard),
        ("cloud-messaging", Self::CloudMessaging),
        ("power-booster", Self::PowerBooster),
        ("power-cluster", Self::PowerCluster),
    ];
}

impl Word for InstanceKind {
    const WHAT: &'static str = "kind of instance";
    const ALL: &'static [(&'static str, Self)] =
        &[("marketing", Self::Marketing), ("mid-sourcing", Self::MidSourcing), ("execution", Self::Execution)];
}

impl Word for Engine {
    const WHAT: &'static str = "database engine";
    const ALL: &'static [(&'static str, Self)] =
        &[("postgresql", Self::Postgresql), ("oracle", Self::Oracle), ("mssql", Self::Mssql), ("mysql", Self::Mysql)];
}

impl Word for WebServer {
    const WHAT: &'static str = "web server";
    const ALL: &'static [(&'static str, Self)] = &[("apache", Self::Apache), ("iis", Self::Iis)];
}

impl Word for InitSystem {
    const WHAT: &'static str = "init system";
    const ALL: &'static [(&'static str, Self)] = &[("sysv", Self::Sysv), ("systemd", Self::Systemd)];
}

impl Word for BecomeMethod {
    const WHAT: &'static str = "method";
    const ALL: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("sudo", Self::Sudo), ("doas", Self::Doas), ("su", Self::Su)];
}

impl Word for KeepOf {
    const WHAT: &'static str = "thing to keep";
    const ALL: &'static [(&'static str, Self)] = &[("installation", Self::Installation), ("database", Self::Database)];
}

impl Word for OldAlgorithm {
    const WHAT: &'static str = "outdated algorithm";
    const ALL: &'static [(&'static str, Self)] = &[
        (Self::GroupExchangeSha1.as_str(), Self::GroupExchangeSha1),
        (Self::Group14Sha1.as_str(), Self::Group14Sha1),
        (Self::Group1Sha1.as_str(), Self::Group1Sha1),
        (Self::SshRsa.as_str(), Self::SshRsa),
        (Self::Aes128Cbc.as_str(), Self::Aes128Cbc),
        (Self::Aes192Cbc.as_str(), Self::Aes192Cbc),
        (Self::Aes256Cbc.as_str(), Self::Aes256Cbc),
        (Self::HmacSha1.as_str(), Self::HmacSha1),
        (Self::HmacSha1Etm.as_str(), Self::HmacSha1Etm),
    ];
}

impl Word for BackupBy {
    const WHAT: &'static str = "word for `by`";
    const ALL: &'static [(&'static str, Self)] = &[("dba", Self::Dba)];
}

impl Word for SourceVersion {
    const KIND: Kind = Kind::SourceVersion;
    const WHAT: &'static str = "source version";
    const ALL: &'static [(&'static str, Self)] =
        &[("5.11", Self::V5_11), ("6.02", Self::V6_02), ("6.1", Self::V6_1), ("7", Self::V7)];
}
