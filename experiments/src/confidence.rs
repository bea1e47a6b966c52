//! What so many looks without, or with few, failures show: the exact upper bound of Clopper and
//! Pearson on the rate of failures ("The use of confidence or fiducial limits illustrated in the
//! case of the binomial", Biometrika 26, 1934). It takes looks to be independent of each other,
//! which looks at one system a second apart rarely are: whoever shows a bound says so.

/// How sure a bound is: it is wrong one time in twenty.
pub const CONFIDENCE: f64 = 0.95;

/// How often the interval that holds the bound is halved: more than the digits of a float need.
const HALVINGS: usize = 100;

/// The highest rate of failures that so many failures in so many looks do not exclude, with
/// [`CONFIDENCE`], from one side: at any higher rate, so few failures would come up less than one
/// time in twenty. 1 where there was no look, or where every look failed.
pub fn upper_bound(samples: u64, failures: u64) -> f64 {
    if failures >= samples {
        return 1.0;
    }
    let (n, k) = (samples as f64, failures as f64);
    if failures == 0 {
        // P(no failure) = (1 - p)^n, in a form that keeps its digits for a large n.
        return -f64::exp_m1(f64::ln(1.0 - CONFIDENCE) / n);
    }
    // The probability of at most k failures falls as p grows.
    let (mut low, mut high) = (k / n, 1.0);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        match at_most(k, n, middle) > 1.0 - CONFIDENCE {
            true => low = middle,
            false => high = middle,
        }
    }
    0.5 * (low + high)
}

/// How many looks without a failure exclude every higher rate of failures than this one.
pub fn samples_to_exclude(rate: f64) -> u64 {
    if rate.is_nan() || rate <= 0.0 {
        return u64::MAX;
    }
    if rate >= 1.0 {
        return 1;
    }
    (f64::ln(1.0 - CONFIDENCE) / f64::ln_1p(-rate)).ceil() as u64
}

/// A rate as people read it: `9.5 %`, `0.10 %`.
pub fn percent(rate: f64) -> String {
    let percent = 100.0 * rate;
    let digits = match percent {
        p if p >= 1.0 => 1,
        p if p >= 0.01 => 2,
        _ => 4,
    };
    format!("{percent:.digits$} %")
}

/// The probability of at most k failures in n looks at the rate p: the regularized incomplete beta function I(1-p; n-k, k+1)
/// (Abramowitz and Stegun, 26.5.24).
fn at_most(k: f64, n: f64, p: f64) -> f64 {
    incomplete_beta(1.0 - p, n - k, k + 1.0)
}

/// The regularized incomplete beta function, by the continued fraction 26.5.8 of Abramowitz and Stegun.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let front = a * x.ln() + b * (-x).ln_1p() + ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b);
    // The fraction converges fast on one side of the mean; the other side is the complement.
    if x < (a + 1.0) / (a + b + 2.0) {
        front.exp() * fraction(x, a, b) / a
    } else {
        1.0 - front.exp() * fraction(1.0 - x, b, a) / b
    }
}

/// The continued fraction, evaluated from its front (Lentz's method).
fn fraction(x: f64, a: f64, b: f64) -> f64 {
    const TERMS: u32 = 100_000;
    const TINY: f64 = 1e-300;
    let not_zero = |value: f64| match value.abs() < TINY {
        true => TINY,
        false => value,
    };
    let mut c = 1.0;
    let mut d = 1.0 / not_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    for term in 1..TERMS {
        let m = f64::from(term);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / not_zero(1.0 + even * d);
        c = not_zero(1.0 + even / c);
        value *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / not_zero(1.0 + odd * d);
        c = not_zero(1.0 + odd / c);
        let change = d * c;
        value *= change;
        if (change - 1.0).abs() < 1e-15 {
            break;
        }
    }
    value
}

/// The logarithm of the gamma function for a positive argument, by Stirling's series (Abramowitz and Stegun, 6.1.41) once the
/// argument is large enough for it.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 15.0 {
        shift += x.ln();
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let series = (1.0 / 12.0
        - square
            * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0))))
        / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// At most k failures in n looks at the rate p, term by term.
    fn summed(k: u64, n: u64, p: f64) -> f64 {
        if p > 0.5 {
            // The first term would be too small for a float.
            return 1.0 - summed(n - k - 1, n, 1.0 - p);
        }
        let mut term = (1.0 - p).powi(i32::try_from(n).unwrap());
        let mut sum = term;
        for i in 0..k {
            term *= (n - i) as f64 / (i + 1) as f64 * p / (1.0 - p);
            sum += term;
        }
        sum
    }

    #[test]
    fn upper_bound_known_values_are_exact() {
        let near = |samples, failures, wanted: f64| {
            let found = upper_bound(samples, failures);
            assert!(
                (found - wanted).abs() < 1e-9,
                "{failures} of {samples}: {found}, not {wanted}"
            );
        };
        // Where nothing failed it is 1 - 0.05^(1/n).
        near(1, 0, 0.95);
        near(2, 0, 1.0 - 0.05_f64.sqrt());
        near(30, 0, 0.095_033_852_855_304);
        // All but one failed: 1 - p^n = 0.05.
        near(2, 1, 0.95_f64.sqrt());
        near(10, 9, 0.95_f64.powf(0.1));
        near(0, 0, 1.0);
        near(7, 7, 1.0);
        // By exact sums of the binomial distribution, in decimals of 60 digits.
        near(10, 1, 0.394_163_302_436_505);
        near(100, 5, 0.102_253_377_643_275);
        near(1000, 37, 0.048_389_926_665_973);
        assert!(upper_bound(2995, 0) <= 0.001 && upper_bound(2994, 0) > 0.001);
        assert_eq!(samples_to_exclude(0.001), 2995);
        assert_eq!(
            (samples_to_exclude(1.0), samples_to_exclude(0.0)),
            (1, u64::MAX)
        );
    }

    #[test]
    fn percent_small_rates_keep_two_digits() {
        assert_eq!(percent(upper_bound(30, 0)), "9.5 %");
        assert_eq!(percent(0.095), "9.5 %");
        assert_eq!(percent(0.001), "0.10 %");
        assert_eq!(percent(1.0), "100.0 %");
    }

    proptest! {
        #[test]
        fn upper_bound_is_where_so_few_failures_come_up_one_time_in_twenty(
            (samples, failures) in (1_u64..400).prop_flat_map(|samples| (Just(samples), 0..samples)),
        ) {
            let bound = upper_bound(samples, failures);
            prop_assert!((summed(failures, samples, bound) - 0.05).abs() < 1e-8);
            prop_assert!(bound > failures as f64 / samples as f64);
            // More looks, or fewer failures, never show less.
            prop_assert!(upper_bound(samples + 1, failures) < bound);
            prop_assert!(failures == 0 || upper_bound(samples, failures - 1) < bound);
        }

        #[test]
        fn upper_bound_of_very_many_looks_is_a_rate(samples in 1_u64..10_000_000, part in 0.0..1.0_f64) {
            let failures = (samples as f64 * part) as u64;
            let bound = upper_bound(samples, failures);
            prop_assert!(bound > 0.0 && bound <= 1.0 && bound >= failures as f64 / samples as f64);
        }
    }
}
