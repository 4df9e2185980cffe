//! Basic authentication (RFC 7617) against a file of users and hashes.
//!
//! The file has a line `user:<SHA-256 of the password, as hex>` for each who may ask; `#` begins a
//! comment. A plain fast hash is enough because the passwords are made by a machine: 24 random bytes
//! can't be guessed from their hash, however fast it is, and a hash that is slow on purpose would cost
//! the database's processors some tenths of a second at every scrape. For the same reason there is no
//! salt. The README has the line that makes both halves; a password that a person chose does not
//! belong there.
//!
//! Invariant: names and hashes are compared in constant time, all of them, so that an answer's time
//! tells nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Who may ask is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuthError {
    #[error("can't read {} ([http] basic_auth_file); trying again", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "{} ([http] basic_auth_file), line {line}: expected user:SHA-256-OF-THE-PASSWORD in 64 hexadecimal digits",
        path.display()
    )]
    Line { path: PathBuf, line: usize },
    #[error("{} ([http] basic_auth_file) names nobody who may ask", path.display())]
    Empty { path: PathBuf },
}

/// Those who may ask.
pub(super) struct Gate {
    users: Vec<User>,
}

/// BLAKE3's type compares in constant time, whatever bytes it holds:
/// <https://docs.rs/blake3/latest/blake3/struct.Hash.html>.
struct User {
    name: blake3::Hash,
    password_sha256: blake3::Hash,
}

impl Gate {
    pub(super) fn open(path: &Path) -> Result<Self, AuthError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| AuthError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, AuthError> {
        let mut users = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // The line is not shown: it may hold a password that was put there by mistake.
            let wrong = || AuthError::Line { path: path.to_owned(), line: index + 1 };
            let (name, hash) = line.split_once(':').ok_or_else(wrong)?;
            let password_sha256 = blake3::Hash::from_hex(hash.trim()).map_err(|_| wrong())?;
            if name.is_empty() {
                return Err(wrong());
            }
            users.push(User { name: blake3::hash(name.as_bytes()), password_sha256 });
        }
        if users.is_empty() { Err(AuthError::Empty { path: path.to_owned() }) } else { Ok(Self { users }) }
    }

    /// Whether a request comes from one of them.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let Some((name, password)) = credentials(headers) else { return false };
        let name = blake3::hash(name.as_bytes());
        let digest: [u8; 32] = Sha256::digest(password.as_bytes()).into();
        let given = blake3::Hash::from_bytes(digest);
        // No `any`: it stops at the first.
        self.users
            .iter()
            .fold(false, |found, user| found | ((user.name == name) & (user.password_sha256 == given)))
    }
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn gate(text: &str) -> Result<Gate, AuthError> {
        Gate::parse(Path::new("/etc/wald/http-users"), text)
    }

    fn asks(credentials: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = format!("Basic {}", STANDARD.encode(credentials));
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&value).unwrap());
        headers
    }

    // printf %s secret | sha256sum
    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    #[test]
    fn only_the_right_name_with_the_right_password_is_admitted() {
        let gate = gate(&format!("# who\n\nprometheus:{SECRET}\nother:{}\n", "0".repeat(64))).unwrap();
        assert!(gate.admits(&asks("prometheus:secret")));
        for wrong in ["prometheus:Secret", "other:secret", "prometheus:", ":secret", "prometheus", ""] {
            assert!(!gate.admits(&asks(wrong)), "{wrong}");
        }
        assert!(!gate.admits(&HeaderMap::new()));
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        assert!(!gate.admits(&headers));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic %%%"));
        assert!(!gate.admits(&headers));
    }

    #[test]
    fn a_file_that_names_nobody_or_holds_a_plain_password_is_refused_and_not_shown() {
        assert!(matches!(gate("# nobody\n"), Err(AuthError::Empty { .. })));
        for text in ["prometheus:hunter2\n", "prometheus\n", &format!(":{SECRET}\n")] {
            let error = gate(text).err().unwrap().to_string();
            assert!(error.contains("line 1") && !error.contains("hunter2"), "{error}");
        }
    }
}
