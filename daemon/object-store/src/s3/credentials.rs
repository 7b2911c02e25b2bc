//! Who asks.

use std::fmt;

use reqsign_aws_v4::{
    Credential, DefaultCredentialProvider, RequestSigner, StaticCredentialProvider,
};

use super::S3Config;
use crate::error::Error;
use crate::http_client::HttpClient;
use crate::identity::Identity;

/// Keys of an account.
#[derive(Clone, PartialEq, Eq)]
pub struct AwsCredentials {
    /// Names the key.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: String,
    /// Goes with keys that expire.
    pub session_token: Option<String>,
}

impl fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = ("access_key_id", &self.access_key_id);
        f.debug_struct("AwsCredentials").field(id.0, id.1).finish_non_exhaustive()
    }
}

/// The identity that a cache is asked with.
pub(super) fn identity(
    config: &S3Config,
    http: &HttpClient,
) -> Result<Identity<Credential>, Error> {
    let signer = RequestSigner::new("s3", &config.region);
    let Some(credentials) = &config.credentials else {
        return Identity::of_machine("AWS", DefaultCredentialProvider::new(), signer, http);
    };
    let AwsCredentials { access_key_id, secret_access_key, session_token } = credentials;
    let mut provider = StaticCredentialProvider::new(access_key_id, secret_access_key);
    if let Some(token) = session_token {
        provider = provider.with_session_token(token);
    }
    Ok(Identity::given(provider, signer))
}
