//! Users by name or number.

/// The number of a user given by name or number.
pub(super) fn uid_of(user: &str) -> Option<u32> {
    user.parse()
        .ok()
        .or_else(|| Some(nix::unistd::User::from_name(user).ok()??.uid.as_raw()))
}
