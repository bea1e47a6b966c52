//! How a controller is reached: directly, or over a proxy.

use super::deadline::ConnectError;
use super::proxy::{HttpProxy, proxy_for};

/// How a controller is reached.
#[derive(Debug, Clone)]
pub struct Route {
    /// The controller, as `HOST[:PORT]`.
    pub controller: String,
    /// The proxy in between.
    pub proxy: Option<HttpProxy>,
}

impl Route {
    /// The route to this controller, over the proxy that is given or that the environment names.
    ///
    /// # Errors
    /// The proxy is not named as it should be.
    pub fn new(controller: &str, proxy: Option<&str>) -> Result<Self, ConnectError> {
        match proxy_for(controller, proxy, |name| std::env::var(name).ok()) {
            Ok(proxy) => Ok(Route {
                controller: controller.to_owned(),
                proxy,
            }),
            Err(what) => {
                let (what, hint) = what
                    .split_once("\nhint: ")
                    .unwrap_or((&what, "see `--proxy`"));
                Err(ConnectError::new(what, hint))
            }
        }
    }
}
