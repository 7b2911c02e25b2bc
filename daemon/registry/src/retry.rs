//! When a request is sent again.

use std::time::Duration;

use kiln_http::{is_transient, retry_after};
use reqwest::Response;

use crate::error::Error;

/// Repetitions of one request.
const MAX_RETRIES: u32 = 4;
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// A server may ask for more patience than a build has.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// The repetitions that a request has left.
pub(crate) struct Retries {
    left: u32,
}

impl Retries {
    /// For a request with no other host to turn to: repeated where that may help.
    pub(crate) fn transient() -> Self {
        Self { left: MAX_RETRIES }
    }

    /// For a request that is sent once.
    pub(crate) fn none() -> Self {
        Self { left: 0 }
    }

    /// How long to wait before sending again; `None` if `outcome` is final.
    pub(crate) fn delay(&mut self, outcome: &Result<Response, Error>) -> Option<Duration> {
        let asked = match outcome {
            Ok(response) if is_transient(response.status()) => retry_after(response),
            Err(error) if error.is_transient() => None,
            Ok(_) | Err(_) => return None,
        };
        self.next().map(|delay| asked.unwrap_or(delay).min(MAX_DELAY))
    }

    /// The next delay, if there is a repetition left.
    pub(crate) fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        Some(FIRST_DELAY * 2_u32.pow(MAX_RETRIES - 1 - self.left))
    }
}

#[cfg(test)]
mod tests {
    use http::header::RETRY_AFTER;

    use super::*;

    fn answer(status: u16, retry_after: Option<&str>) -> Response {
        let mut builder = http::Response::builder().status(status);
        if let Some(value) = retry_after {
            builder = builder.header(RETRY_AFTER, value);
        }
        builder.body("").unwrap().into()
    }

    #[test]
    fn delays_grow_and_end() {
        let mut retries = Retries::transient();
        let delays: Vec<u128> = std::iter::from_fn(|| retries.delay(&Ok(answer(503, None))))
            .map(|delay| delay.as_millis())
            .collect();
        assert_eq!(delays, [200, 400, 800, 1600]);
        assert_eq!(Retries::none().delay(&Ok(answer(503, None))), None);
    }

    #[test]
    fn only_trouble_that_may_pass_is_repeated() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(Retries::transient().delay(&Ok(answer(status, None))).is_some(), "{status}");
        }
        for status in [200, 202, 400, 401, 403, 404, 405, 416, 501] {
            assert!(Retries::transient().delay(&Ok(answer(status, None))).is_none(), "{status}");
        }
    }

    #[test]
    fn a_server_may_name_the_delay_within_limits() {
        let delay = |value| Retries::transient().delay(&Ok(answer(429, Some(value)))).unwrap();
        assert_eq!(delay("0"), Duration::ZERO);
        assert_eq!(delay("3"), Duration::from_secs(3));
        assert_eq!(delay("99999999999"), MAX_DELAY);
        assert_eq!(delay("-1"), FIRST_DELAY);
        assert_eq!(delay("Wed, 21 Oct 2015 07:28:00 GMT"), FIRST_DELAY);
    }
}
