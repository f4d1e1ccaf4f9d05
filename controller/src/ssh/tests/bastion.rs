//! What a bastion is told: nothing of the hosts behind it.

use super::*;

impl World {
    /// Opens `mkt1`, which is behind this server as a bastion; what became of it, and how often the bastion was told a password.
    async fn behind(&self, jump: &str, change: impl Fn(&mut Host)) -> (String, usize) {
        let known = format!("[{}]:{} {}\n", self.address.ip(), self.address.port(), self.key);
        std::fs::write(self.dir.path().join("known_hosts"), known).unwrap();
        let mut fleet = self.fleet(&["mkt1", "jump1"], None, Some(self.secret("login-password", "right")));
        let hosts = &mut fleet.platforms[0].hosts;
        hosts[0].address = "192.0.2.1".to_owned();
        hosts[0].ssh.jump = Some(format!("{jump}{}", self.address));
        change(&mut hosts[1]);
        let options = SshOptions { agent_socket: None, home: None, ..SshOptions::default() };
        let hosts = SshHosts::new(&fleet, Arc::new(Secrets::unattended("/")), options).unwrap();
        let text = hosts.open("mkt1", false).await.map(|_| ()).unwrap_err().to_string();
        (text, tried(self))
    }
}

/// A bastion that wants a password, in one way or the other, is not told that of the host behind it.
#[tokio::test]
async fn a_bastion_is_told_no_password_of_a_host() {
    let world = World::new(true).await;
    for (what, method) in [("password", "password"), ("questions", "keyboard-interactive")] {
        std::fs::write(world.dir.path().join("login"), what).unwrap();
        let elsewhere = |host: &mut Host| host.address = "192.0.2.2".to_owned();
        let (text, told) = world.behind("", elsewhere).await;
        assert_eq!(told, 0, "{text}");
        assert!(text.contains("its bastion") && text.contains(&format!("the server offers {method}")), "{text}");
        assert!(text.contains("IdentityFile for it in your ssh_config"), "{text}");
        // One that is a host of the fleet itself has a password of its own; another account there has none.
        let (text, told) = world.behind("", |_| ()).await;
        assert!(told == 1 && text.contains("opens no way to 192.0.2.1"), "{text}");
        assert_eq!(world.behind("other@", |_| ()).await.1, 0, "{what}");
        assert_eq!(world.behind("", |host| host.ssh.password = None).await.1, 0, "{what}");
        assert_eq!(world.behind("", |host| host.ssh.port = Some(22)).await.1, 0, "{what}");
    }
}
