//! What the owner of a host allows of requests.

use backburn_experiments::destination::DestinationRules;

/// Where requests may go, and how many there may be.
#[derive(Debug, Clone, Default)]
pub struct RequestLimits {
    /// The destinations that may be connected to.
    pub destinations: DestinationRules,
    /// The most requests per second that one fault or probe may send.
    pub max_rate: Option<u32>,
}

impl RequestLimits {
    /// Whether so many requests per second are allowed.
    ///
    /// # Errors
    /// They are not; the text names the rule.
    pub fn check_rate(&self, rate: f64) -> Result<(), String> {
        match self.max_rate {
            Some(most) if rate > f64::from(most) => Err(format!(
                "{rate} requests per second are more than the {most} that `max-request-rate` of the policy allows"
            )),
            _ => Ok(()),
        }
    }
}
