//! When a request is sent again.

use std::time::{Duration, Instant};

use http::StatusCode;
use kiln_http::{is_transient, retry_after};
use reqwest::Response;

use crate::error::Error;

const FIRST_DELAY: Duration = Duration::from_millis(200);
const MAX_DELAY: Duration = Duration::from_secs(10);

/// How much trouble is borne for one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How often it is sent at most, where the trouble is the server's.
    pub(crate) attempts: u32,
    /// How long a server that asks for patience gets it.
    pub(crate) total: Duration,
}

impl Patience {
    pub(crate) const USUAL: Self = Self { attempts: 5, total: Duration::from_mins(2) };

    pub(crate) fn begin(self) -> Retries {
        Retries { patience: self, since: Instant::now(), failures: 0, delays: 0 }
    }
}

/// The repetitions of one request.
pub(crate) struct Retries {
    patience: Patience,
    since: Instant,
    failures: u32,
    delays: u32,
}

impl Retries {
    /// How long to wait before sending again; `None` if `outcome` is final.
    pub(crate) fn delay(&mut self, outcome: &Result<Response, Error>) -> Option<Duration> {
        let asked = match outcome {
            Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
                retry_after(response)
            }
            Ok(response) if is_transient(response.status()) => {
                self.failures += 1;
                retry_after(response)
            }
            Err(Error::Transport { .. } | Error::Timeout { .. }) => {
                self.failures += 1;
                None
            }
            Ok(_) | Err(_) => return None,
        };
        let delay = asked.unwrap_or_else(|| self.next());
        let is_over = self.failures >= self.patience.attempts
            || self.since.elapsed().saturating_add(delay) > self.patience.total;
        (!is_over).then_some(delay)
    }

    /// The delay after a connection that broke; `None` if that happens too often.
    pub(crate) fn after_break(&mut self) -> Option<Duration> {
        self.failures += 1;
        (self.failures < self.patience.attempts).then(|| self.next())
    }

    fn next(&mut self) -> Duration {
        let delay = FIRST_DELAY.saturating_mul(2_u32.saturating_pow(self.delays)).min(MAX_DELAY);
        self.delays += 1;
        delay
    }
}

#[cfg(test)]
mod tests {
    use http::header::RETRY_AFTER;

    use super::*;

    fn delay(retries: &mut Retries, status: u16, retry_after: &str) -> Option<Duration> {
        let builder = http::Response::builder().status(status).header(RETRY_AFTER, retry_after);
        retries.delay(&Ok(builder.body("").unwrap().into()))
    }

    #[test]
    fn a_server_in_trouble_is_asked_a_few_times_and_a_busy_one_for_as_long_as_there_is_time() {
        let patience = Patience { attempts: 3, total: Duration::from_secs(60) };
        let mut retries = patience.begin();
        let delays: Vec<_> = std::iter::from_fn(|| delay(&mut retries, 503, "")).collect();
        assert_eq!(delays, [200, 400].map(Duration::from_millis));

        let mut retries = patience.begin();
        for _ in 0..20 {
            assert_eq!(delay(&mut retries, 429, "3"), Some(Duration::from_secs(3)));
        }
        assert_eq!(delay(&mut retries, 429, "61"), None);
        assert_eq!(delay(&mut patience.begin(), 403, "1"), None);
        let once = Patience { attempts: 1, ..patience };
        assert_eq!(delay(&mut once.begin(), 500, "0"), None);
    }
}
