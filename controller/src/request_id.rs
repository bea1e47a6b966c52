//! The id of the request that is being served: the client's own, or a new one. It is in the answer, in the log, in the body of
//! a problem and in the audit log, so that the four can be found by one another.

use backburn_experiments::hexadecimal;
use ring::rand::SecureRandom as _;

/// The header of a request's id.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
/// Longest id that is accepted from a client, in bytes.
const MAX_ID_BYTES: usize = 128;

tokio::task_local! {
    static CURRENT: String;
}

/// The id that a client has given, if it is one to keep: letters, digits and `-_.:`, at most 128 of them. Anything else could
/// be an instruction to whoever reads the log.
pub fn accepted(given: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    let is_accepted = (1..=MAX_ID_BYTES).contains(&given.len()) && given.bytes().all(is_plain);
    is_accepted.then(|| given.to_owned())
}

/// A new random id.
pub fn new() -> String {
    let mut bytes = [0; 8];
    // An id that is not random still is one.
    ring::rand::SystemRandom::new().fill(&mut bytes).ok();
    hexadecimal(bytes)
}

/// The id of the request that this code serves; none outside of requests.
pub fn current() -> Option<String> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Serves a request under this id.
pub async fn scope<T>(id: String, serving: impl Future<Output = T>) -> T {
    CURRENT.scope(id, serving).await
}

/// Does work of the current request on another thread, under the same id and with the same place in the log.
pub fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let (id, span) = (current(), tracing::Span::current());
    move || {
        let _entered = span.enter();
        match id {
            Some(id) => CURRENT.sync_scope(id, work),
            None => work(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_id_that_is_odd_is_not_accepted() {
        assert_eq!(accepted("a1-B_2.c:3").as_deref(), Some("a1-B_2.c:3"));
        let long = "x".repeat(MAX_ID_BYTES + 1);
        for odd in ["", "a b", "a\nb", "\u{1b}[2J", "ä", "\"", long.as_str()] {
            assert_eq!(accepted(odd), None, "{odd:?}");
        }
        assert_ne!(new(), new());
        assert!(accepted(&new()).is_some());
    }

    #[tokio::test]
    async fn request_id_is_carried_to_other_threads_and_ends_with_the_request() {
        let there = scope("one".into(), async {
            tokio::task::spawn_blocking(carried(current)).await.unwrap()
        });
        assert_eq!(there.await.as_deref(), Some("one"));
        assert_eq!(current(), None);
    }
}
