//! Who asks.

use std::fmt;

use futures::future::BoxFuture;
use http::request::Parts;
use reqsign_aws_v4::{
    Credential, DefaultCredentialProvider, RequestSigner, StaticCredentialProvider,
};
use reqsign_command_execute_tokio::TokioCommandExecute;
use reqsign_core::{Context, OsEnv, Signer};
use reqsign_file_read_tokio::TokioFileRead;
use reqsign_http_send_reqwest::ReqwestHttpSend;

use super::S3Config;
use crate::error::Error;
use crate::http_client::HttpClient;
use crate::request::Sign;

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

/// Signs requests.
#[derive(Clone)]
pub(super) struct AwsSigner(Signer<Credential>);

impl AwsSigner {
    pub(super) fn new(config: &S3Config, http: &HttpClient) -> Result<Self, Error> {
        let signer = RequestSigner::new("s3", &config.region);
        let Some(credentials) = &config.credentials else {
            let context = Context::new()
                .with_env(OsEnv)
                .with_file_read(TokioFileRead)
                .with_command_execute(TokioCommandExecute)
                .with_http_send(ReqwestHttpSend::new(http.for_credentials()?.clone()));
            return Ok(Self(Signer::new(context, DefaultCredentialProvider::new(), signer)));
        };
        let AwsCredentials { access_key_id, secret_access_key, session_token } = credentials;
        let mut provider = StaticCredentialProvider::new(access_key_id, secret_access_key);
        if let Some(token) = session_token {
            provider = provider.with_session_token(token);
        }
        Ok(Self(Signer::new(Context::new(), provider, signer)))
    }
}

impl Sign for AwsSigner {
    fn sign<'a>(&'a self, parts: &'a mut Parts) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let refused = |error: reqsign_core::Error| Error::Credentials(error.to_string());
            self.0.sign(parts, None).await.map_err(refused)?;
            // Without credentials there is no error, and no signature.
            if !parts.headers.contains_key(http::header::AUTHORIZATION) {
                let nowhere = "neither the client nor this machine has any for AWS";
                return Err(Error::Credentials(nowhere.to_owned()));
            }
            Ok(())
        })
    }
}
