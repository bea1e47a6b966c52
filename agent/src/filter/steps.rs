//! Steps that many rules are made of.

use crate::netlink::{Base, Compare, Expression, Meta, Verdict};

pub(super) fn accept() -> Expression {
    Expression::Verdict(Verdict::Accept)
}

pub(super) fn field(base: Base, offset: u32, length: u32) -> Expression {
    Expression::Payload {
        base,
        offset,
        length,
    }
}

pub(super) fn equal(bytes: &[u8]) -> Expression {
    Expression::Compare(Compare::Equal, bytes.to_vec())
}

pub(super) fn between(field: Expression, first: &[u8], last: &[u8]) -> Vec<Expression> {
    if first == last {
        return vec![field, equal(first)];
    }
    vec![
        field,
        Expression::Compare(Compare::AtLeast, first.to_vec()),
        Expression::Compare(Compare::AtMost, last.to_vec()),
    ]
}

pub(super) fn transport(protocol: u8) -> Vec<Expression> {
    vec![Expression::Meta(Meta::Transport), equal(&[protocol])]
}

pub(super) fn number(modulus: u32, random: bool, how: Compare, limit: u32) -> Vec<Expression> {
    vec![
        Expression::Number { modulus, random },
        Expression::Compare(how, limit.to_be_bytes().to_vec()),
    ]
}
