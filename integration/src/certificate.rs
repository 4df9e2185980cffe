//! A self-signed certificate for loopback, made with the stock `openssl`: for clients that speak
//! nothing but TLS and are told not to check it.

use crate::account::clean_command;
use crate::parts;
use crate::run::run;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Where the two halves are.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes one that is good for a day, in `dir`.
    pub fn make(dir: &Path) -> Result<Certificate> {
        let made = Certificate { certificate: dir.join("tls.crt"), key: dir.join("tls.key") };
        let mut command = clean_command(parts::tool("openssl")?);
        command
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .arg("-keyout")
            .arg(&made.key)
            .arg("-out")
            .arg(&made.certificate);
        run(command)?.success().context("making a certificate")?;
        Ok(made)
    }
}
