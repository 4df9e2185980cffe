//! The certificate of the metrics' port, read again when its file changes: certificates are renewed
//! every few weeks, and the agent is not restarted for that.

use crate::codec::{CodecGone, aside};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// There is no TLS.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("can't use {} ([http] {key}): expected PEM", path.display())]
    Pem {
        key: &'static str,
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("{} ([http] tls_cert) holds no certificate", path.display())]
    Empty { path: PathBuf },
    #[error("the certificate and the key in [http] tls_cert and tls_key can't be used")]
    Pair(#[source] rustls::Error),
    #[error(transparent)]
    Gone(#[from] CodecGone),
    #[error("the handshake failed")]
    Handshake(#[source] std::io::Error),
}

/// A certificate and its key.
pub(super) struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    /// When the two files were last changed.
    stamps: [Option<SystemTime>; 2],
    config: Arc<ServerConfig>,
}

impl TlsFiles {
    pub(super) fn open(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let loaded = Loaded { stamps: stamps(certificate, key), config: load(certificate, key)? };
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), loaded: Mutex::new(loaded) })
    }

    pub(super) async fn accept(
        self: &Arc<Self>,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, TlsError> {
        let this = Arc::clone(self);
        // Looks at the files: not on the runtime's threads.
        let config = aside(move || this.current()).await?;
        TlsAcceptor::from(config).accept(stream).await.map_err(TlsError::Handshake)
    }

    fn current(&self) -> Arc<ServerConfig> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.certificate, &self.key);
        if stamps != loaded.stamps {
            loaded.stamps = stamps;
            // Half of a renewal, most likely: the certificate of before goes on until its other half.
            match load(&self.certificate, &self.key) {
                Ok(config) => loaded.config = config,
                Err(error) => {
                    let error = crate::explain::chain(&error);
                    tracing::warn!(%error, "the new certificate of the metrics' port can't be used");
                }
            }
        }
        Arc::clone(&loaded.config)
    }
}

fn stamps(certificate: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [certificate, key].map(|path| std::fs::metadata(path).ok()?.modified().ok())
}

fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let wrong = |key: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { key, path: path.clone(), source }
    };
    let chain = CertificateDer::pem_file_iter(certificate).map_err(wrong("tls_cert", certificate))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(wrong("tls_cert", certificate))?;
    if chain.is_empty() {
        return Err(TlsError::Empty { path: certificate.to_owned() });
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(wrong("tls_key", key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Pair)?;
    Ok(Arc::new(config))
}
