//! TLS with rustls and ring, by a host's configuration.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::{HostConfig, KeyPair, Protocol};

/// A host's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file or directory cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file has no usable certificate or key in it.
    #[error("{}: {source}", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A certificate or key is not acceptable.
    #[error("{}: {source}", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A file of authorities has none.
    #[error("{}: no certificate in it", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// No TLS version is left to speak.
    #[error("TLS cannot be set up: {source}")]
    Setup {
        /// Why.
        source: rustls::Error,
    },
    /// The HTTP client cannot be made.
    #[error(transparent)]
    Client {
        /// Why.
        source: kiln_http::ClientError,
    },
}

/// The system's certificate authorities, read when they are first needed.
#[derive(Default)]
pub(crate) struct Trust(OnceLock<RootCertStore>);

impl Trust {
    fn system(&self) -> RootCertStore {
        self.0.get_or_init(kiln_http::system_authorities).clone()
    }

    /// What `config` says about TLS.
    pub(crate) fn client_config(
        &self,
        config: &HostConfig,
        protocol: Protocol,
    ) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let (authorities, pairs) = files(config)?;
        let keys = pairs.iter().map(|pair| load_pair(&provider, pair)).collect::<Result<_, _>>()?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Setup { source })?;
        let builder = match protocol {
            Protocol::HttpsUnverified | Protocol::HttpsUnverifiedOrHttp => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
            }
            Protocol::Https | Protocol::Http => {
                let mut roots = self.system();
                for path in authorities {
                    add_authorities(&mut roots, &path)?;
                }
                builder.with_root_certificates(roots)
            }
        };
        Ok(builder.with_client_cert_resolver(Arc::new(ClientKeys(keys))))
    }
}

/// The files that `config` names, those in its directories included.
fn files(config: &HostConfig) -> Result<(Vec<PathBuf>, Vec<KeyPair>), TlsError> {
    let mut authorities = config.ca.clone();
    let mut pairs = config.keypair.clone();
    for directory in &config.tlsconfigdir {
        for path in list(directory)? {
            match path.extension().and_then(OsStr::to_str) {
                Some("crt") => authorities.push(path),
                Some("cert") => {
                    pairs.push(KeyPair { key: path.with_extension("key"), cert: path });
                }
                _ => {}
            }
        }
    }
    Ok((authorities, pairs))
}

/// The directory's entries, sorted; none if it is not there or not ours to read, because
/// directories such as `/etc/docker/certs.d/<host>` are optional.
fn list(directory: &Path) -> Result<Vec<PathBuf>, TlsError> {
    let read = |source| TlsError::Read { path: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(read(error)),
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(read)?;
    paths.sort();
    Ok(paths)
}

fn add_authorities(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    let certificates = load_certificates(path)?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned() });
    }
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|source| TlsError::Certificate { path: path.to_owned(), source })?;
    }
    Ok(())
}

fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem =
        std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { path: path.to_owned(), source })
}

fn load_pair(provider: &CryptoProvider, pair: &KeyPair) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = load_certificates(&pair.cert)?;
    if chain.is_empty() {
        return Err(TlsError::Empty { path: pair.cert.clone() });
    }
    let key = std::fs::read(&pair.key)
        .map_err(|source| TlsError::Read { path: pair.key.clone(), source })?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|source| TlsError::Pem { path: pair.key.clone(), source })?;
    let key = CertifiedKey::from_der(chain, key, provider)
        .map_err(|source| TlsError::Certificate { path: pair.key.clone(), source })?;
    Ok(Arc::new(key))
}

/// Several client certificates, of which a server gets the one that it asks for.
#[derive(Debug)]
struct ClientKeys(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for ClientKeys {
    fn resolve(
        &self,
        authorities: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let usable = || self.0.iter().filter(|key| key.key.choose_scheme(schemes).is_some());
        // An issuer stands in its certificates as the very bytes of its name.
        let is_issued = |key: &&Arc<CertifiedKey>| {
            key.cert.iter().any(|certificate| {
                authorities.iter().any(|&name| contains(certificate.as_ref(), name))
            })
        };
        usable().find(is_issued).or_else(|| usable().next()).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && haystack.windows(needle.len()).any(|window| window == needle)
}

/// Accepts whatever certificate a server shows, for hosts that are configured `insecure`.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
