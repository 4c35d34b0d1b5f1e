//! Check digits of national numbers.

/// Digits as numbers.
fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

/// Sum of products of digits and weights.
fn weighted(digits: &[u32], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(d, w)| d * w).sum()
}

/// IBAN (ISO 13616): letters count from 10, the first four characters go to the end, the whole is 1 modulo 97.
pub(super) fn iban(text: &str) -> bool {
    let clean: Vec<char> = text.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_uppercase()).collect();
    if !(15..=34).contains(&clean.len()) {
        return false;
    }
    let (head, tail) = clean.split_at(4);
    let rest = tail.iter().chain(head).fold(0_u32, |rest, c| {
        let value = c.to_digit(36).unwrap_or(0);
        (rest * if value > 9 { 100 } else { 10 } + value) % 97
    });
    rest == 1
}

/// Spanish DNI and NIE: the letter is the number modulo 23 into a table; X, Y, Z stand for 0, 1, 2.
pub(super) fn dni(text: &str) -> bool {
    let clean: String = text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
    let number = clean.replacen('X', "0", usize::from(clean.starts_with('X')));
    let number = number.replacen('Y', "1", usize::from(number.starts_with('Y')));
    let number = number.replacen('Z', "2", usize::from(number.starts_with('Z')));
    let Some((body, letter)) = number.char_indices().next_back().map(|(at, letter)| (&number[..at], letter)) else { return false };
    let table = b"TRWAGMYFPDXBNJZSQVHLCKE";
    body.parse::<usize>().is_ok_and(|n| char::from(table[n % 23]) == letter)
}

/// Italian codice fiscale: characters at odd and even places count differently; their sum modulo 26 is the last letter.
pub(super) fn codice_fiscale(text: &str) -> bool {
    const ODD: [u32; 26] = [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let clean: Vec<u32> = text.chars().filter_map(|c| c.to_digit(36)).collect();
    let [body @ .., last] = clean.as_slice() else { return false };
    let place = |d: u32| if d > 9 { d - 10 } else { d };
    let value = |(i, d): (usize, &u32)| if i % 2 == 0 { ODD[place(*d) as usize] } else { place(*d) };
    body.iter().enumerate().map(value).sum::<u32>() % 26 + 10 == *last
}

/// Brazilian CPF: two check digits modulo 11; eleven equal digits are none.
pub(super) fn cpf(text: &str) -> bool {
    let d = digits(text);
    let check = |n: usize| {
        let weights: Vec<u32> = (2..).take(n).collect::<Vec<_>>().into_iter().rev().collect();
        weighted(&d[..n], &weights) * 10 % 11 % 10 == d[n]
    };
    d.len() == 11 && d.iter().any(|x| *x != d[0]) && check(9) && check(10)
}

/// Indian Aadhaar: Verhoeff's check over the dihedral group D5.
pub(super) fn aadhaar(text: &str) -> bool {
    const MOVE: [usize; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let times = |a: usize, b: usize| match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => (a + b - 5) % 5 + 5,
        (false, true) => (a - 5 + 5 - b) % 5 + 5,
        (false, false) => (a + 5 - b) % 5,
    };
    let moved = |d: usize, n: usize| (0..n % 8).fold(d, |d, _| MOVE[d]);
    let d = digits(text);
    d.len() == 12 && d.iter().rev().enumerate().fold(0, |c, (i, d)| times(c, moved(*d as usize, i))) == 0
}

/// Polish PESEL: weights 1, 3, 7, 9, and a month that says its century.
pub(super) fn pesel(text: &str) -> bool {
    let d = digits(text);
    if d.len() != 11 {
        return false;
    }
    let (month, day) = ((d[2] * 10 + d[3]) % 20, d[4] * 10 + d[5]);
    (1..=12).contains(&month) && (1..=31).contains(&day) && (weighted(&d, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]) + d[10]).is_multiple_of(10)
}

/// German tax number: ISO/IEC 7064, MOD 11, 10; one digit occurs twice or three times among the first ten.
pub(super) fn german_tax(text: &str) -> bool {
    let d = digits(text);
    if d.len() != 11 || d[0] == 0 {
        return false;
    }
    let most = (0..10).map(|n| d[..10].iter().filter(|x| **x == n).count()).max().unwrap_or(0);
    let rest = d[..10].iter().fold(10, |product, x| {
        let sum = (product + x) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    (2..=3).contains(&most) && (11 - rest) % 10 == d[10]
}

/// French NIR: the last two digits are 97 less the rest modulo 97; Corsica's departments count as 19 and 18.
pub(super) fn nir(text: &str) -> bool {
    let clean: String = text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_uppercase();
    if clean.len() != 15 {
        return false;
    }
    let number = clean[..13].replace("2A", "19").replace("2B", "18").parse::<u64>();
    number.is_ok_and(|n| clean[13..].parse::<u64>().is_ok_and(|key| key == 97 - n % 97))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number with one digit changed has another check digit.
    fn breaks(check: fn(&str) -> bool, good: &str) {
        assert!(check(good), "{good}");
        let at = good.rfind(|c: char| c.is_ascii_digit()).unwrap();
        let other = (good.as_bytes()[at] - b'0' + 1) % 10;
        let bad = format!("{}{other}{}", &good[..at], &good[at + 1..]);
        assert!(!check(&bad), "{bad}");
    }

    #[test]
    fn published_examples() {
        for good in ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "FR14 2004 1010 0505 0001 3M02 606", "NO9386011117947"] {
            breaks(iban, good);
        }
        breaks(dni, "12345678Z");
        breaks(dni, "X1234567L");
        breaks(codice_fiscale, "RSSMRA85T10A562S");
        breaks(cpf, "529.982.247-25");
        assert!(!cpf("111.111.111-11"));
        breaks(aadhaar, "2341 2341 2346");
        breaks(pesel, "44051401359");
        breaks(german_tax, "86095742719");
        breaks(nir, "2 55 08 14 168 025 38");
    }
}
