//! Every end-to-end test, in one program: they wait more than they work, so they run beside one another.

mod architecture;
mod conditions;
mod faults_cut;
mod faults_disk;
mod faults_journal;
mod keep;
mod kill_postupgrade;
mod migrate;
mod modules;
mod openssh;
mod passwords;
mod passwords_typed;
mod people;
mod prerequisites;
mod push;
mod realistic;
mod restore_tried;
mod rollback;
mod saved;
mod secrets;
mod ssh_bastion;
mod ssh_fido;
mod ssh_login;
mod ssh_reference;
mod two_controllers;
mod versions;
