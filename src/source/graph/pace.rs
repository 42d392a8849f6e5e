//! How slowly an answer may come.
//!
//! A connection that brings one byte every two seconds is never silent and never done. So there are two limits: for how
//! long nothing arrives, and a deadline for the whole answer, which follows from how much has come of it. Only the time
//! counts in which somebody waits for the network: a body that nobody reads for a while is not late.

use super::error::{ErrorKind, GraphError};
use super::http::cut_off;
use bytes::Bytes;
use reqwest::Response;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How slowly an answer may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// For how long nothing may arrive. Graph's own gateway gives up after about a minute and a half.
    pub silence_max: Duration,
    /// How long an answer may take beside the time that its bytes take.
    pub overhead_max: Duration,
    /// At this rate bytes must arrive on average. Sixteen requests at the same time have it over a line of 1 Mbit/s.
    pub bytes_per_second_min: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            silence_max: Duration::from_secs(100),
            overhead_max: Duration::from_secs(120),
            bytes_per_second_min: 8 << 10,
        }
    }
}

impl Pace {
    /// Returns how long `bytes` may take.
    fn time_of(&self, bytes: u64) -> Duration {
        Duration::from_secs(bytes / self.bytes_per_second_min.max(1))
    }

    /// Returns how long the head of an answer may take to come, to a request that carries `upload` bytes.
    pub(crate) fn head_time_max(&self, upload: u64) -> Duration {
        self.silence_max + self.time_of(upload)
    }
}

/// The time that one body has taken so far.
#[derive(Debug)]
pub(crate) struct Arrival {
    pace: Pace,
    waited: Duration,
    received: u64,
}

impl Arrival {
    /// Starts with nothing received.
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, waited: Duration::ZERO, received: 0 }
    }

    /// Returns the next bytes of the body, or `None` after the last.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the body ends early, or comes more slowly than it may.
    pub(crate) async fn chunk(
        &mut self,
        response: &mut Response,
        label: &'static str,
    ) -> Result<Option<Bytes>, GraphError> {
        let Pace { overhead_max, silence_max, .. } = self.pace;
        let left = (overhead_max + self.pace.time_of(self.received)).saturating_sub(self.waited);
        let since = Instant::now();
        // What is there already is taken in any case: only then is the time looked at.
        let chunk = timeout(left.min(silence_max), response.chunk()).await;
        self.waited += since.elapsed();
        match chunk {
            Ok(Ok(chunk)) => {
                self.received += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                Ok(chunk)
            }
            Ok(Err(error)) => Err(cut_off(label, error)),
            Err(_) => {
                let (bytes, waited) = (self.received, self.waited.as_secs());
                let why = format!("the answer came too slowly: {bytes} bytes in {waited} s");
                Err(GraphError::new(ErrorKind::Unavailable, label).explained(why))
            }
        }
    }
}
