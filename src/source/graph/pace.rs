//! Limits how slowly an answer may arrive.
//!
//! A connection that delivers one byte every two seconds is never silent and never done. So there are two limits: the
//! longest time without any bytes, and a deadline for the whole answer, which grows with the bytes that have arrived.
//! Only the time counts in which the program waits for the network: a body that nobody reads for a while is not late.

use super::error::{ErrorKind, GraphError};
use bytes::Bytes;
use reqwest::Response;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How slowly an answer may arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Maximum time without any bytes. Graph's own gateway gives up after about a minute and a half.
    pub silence_max: Duration,
    /// Maximum time for an answer, in addition to the time for its bytes.
    pub overhead_max: Duration,
    /// Minimum average rate. Sixteen requests at the same time reach it on a line of 1 Mbit/s.
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

    /// Returns how long the head of an answer may take, if the request carries `upload` bytes.
    pub(crate) fn head_time_max(&self, upload: u64) -> Duration {
        self.silence_max + self.time_of(upload)
    }
}

/// Measures the time that one body takes.
#[derive(Debug)]
pub(crate) struct Arrival {
    pace: Pace,
    waited: Duration,
    received: u64,
}

impl Arrival {
    /// Starts a measurement, before the first byte.
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, waited: Duration::ZERO, received: 0 }
    }

    /// Returns the next bytes of the body, or `None` after the last ones.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the body ends early, or arrives too slowly.
    pub(crate) async fn chunk(
        &mut self,
        response: &mut Response,
        label: &'static str,
    ) -> Result<Option<Bytes>, GraphError> {
        let Pace { overhead_max, silence_max, .. } = self.pace;
        let left = (overhead_max + self.pace.time_of(self.received)).saturating_sub(self.waited);
        let since = Instant::now();
        // Take bytes that have already arrived, and check the time only afterwards.
        let chunk = timeout(left.min(silence_max), response.chunk()).await;
        self.waited += since.elapsed();
        match chunk {
            Ok(Ok(chunk)) => {
                self.received += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                Ok(chunk)
            }
            Ok(Err(error)) => Err(GraphError::cut_off(label, error)),
            Err(_) => {
                let (bytes, waited) = (self.received, self.waited.as_secs());
                let why = format!("the answer came too slowly: {bytes} bytes in {waited} s");
                Err(GraphError::new(ErrorKind::Unavailable, label).explained(why))
            }
        }
    }
}
