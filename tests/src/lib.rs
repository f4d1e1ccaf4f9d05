//! What the end-to-end and fault tests share.

pub mod sshd;
