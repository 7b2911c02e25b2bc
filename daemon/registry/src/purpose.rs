//! What a request is for: the words of its errors and the scopes of its token.

use http::{Method, StatusCode};
use reqwest::Response;

use crate::auth::Scopes;
use crate::error::{Action, Error, shown};
use crate::reference::ImageRef;
use crate::registry_error::RegistryErrors;
use crate::transport::read_limited;

/// More of an error's body is not read.
const MAX_ERROR_BODY: u64 = 64 * 1024;

/// Why something is asked of a registry.
pub(crate) struct Purpose {
    /// What errors name: the reference, or name and digest.
    pub(crate) subject: String,
    pub(crate) action: Action,
    pub(crate) scopes: Scopes,
}

impl Purpose {
    /// Reading `subject` from the repository of `image`.
    pub(crate) fn pull(image: &ImageRef, subject: String) -> Self {
        Self { subject, action: Action::Pull, scopes: Scopes::pull(image.repository()) }
    }

    /// Writing `subject` to the repository of `image`.
    pub(crate) fn push(image: &ImageRef, subject: String) -> Self {
        Self { subject, action: Action::Push, scopes: Scopes::push(image.repository()) }
    }

    pub(crate) fn not_found(&self) -> Error {
        Error::NotFound { subject: self.subject.clone() }
    }

    pub(crate) fn unauthorized(&self, message: &str) -> Error {
        Error::Unauthorized {
            subject: self.subject.clone(),
            action: self.action,
            message: message.to_owned(),
        }
    }

    /// A token server's refusal is the registry's; its other troubles are its own.
    pub(crate) fn refused_by_token_server(&self, error: Error) -> Error {
        match error {
            Error::Http {
                status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN,
                ref errors,
                ref url,
                ..
            } => {
                let words = if errors.is_empty() { "no token" } else { &errors.to_string() };
                self.unauthorized(&format!("{words} (from {url})"))
            }
            error => error,
        }
    }

    /// The error that a response without success stands for.
    pub(crate) async fn failure(&self, method: &Method, response: Response) -> Error {
        let status = response.status();
        let url = shown(response.url());
        // The body only adds words: where it cannot be read, the status has to do.
        let body = read_limited(response, MAX_ERROR_BODY).await.unwrap_or_default();
        let errors = RegistryErrors::parse(&body);
        let subject = self.subject.clone();
        match status {
            StatusCode::NOT_FOUND => Error::NotFound { subject },
            StatusCode::UNAUTHORIZED => self.unauthorized(&errors.to_string()),
            StatusCode::FORBIDDEN => Error::Denied { subject, action: self.action, errors },
            status => Error::Http { method: method.clone(), url, status, errors },
        }
    }
}
