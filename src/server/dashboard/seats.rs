//! Places for streams: so many for all, and so many for each caller, so that nobody takes those of others.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::refusal::Refusal;

/// Streams that may be open at the same time.
pub const STREAMS: usize = 200;
/// Those of one caller.
pub const OWN: usize = 10;

/// Who has how many streams open.
#[derive(Default)]
pub struct Seats {
    /// By user name; nobody with none.
    taken: Mutex<HashMap<String, usize>>,
}

impl Seats {
    /// A place for a caller, until it is dropped.
    ///
    /// # Errors
    /// When there is none left.
    pub fn take(self: &Arc<Self>, name: &str) -> Result<Seat, Refusal> {
        let mut taken = self.taken.lock();
        if taken.values().sum::<usize>() >= STREAMS {
            return Err(Refusal::Unavailable("too many dashboards are open; close one".into()));
        }
        let own = taken.get(name).copied().unwrap_or_default();
        if own >= OWN {
            return Err(Refusal::Unavailable(format!("{name} has too many dashboards open; close one of the {own}")));
        }
        taken.insert(name.to_owned(), own + 1);
        Ok(Seat { seats: self.clone(), name: name.to_owned() })
    }

    /// Streams that are open.
    #[cfg(test)]
    pub fn taken(&self) -> usize {
        self.taken.lock().values().sum()
    }
}

/// A place of a stream.
pub struct Seat {
    seats: Arc<Seats>,
    name: String,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        match taken.get_mut(&self.name) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.remove(&self.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_the_places_of_others_and_there_is_an_end_to_all() {
        let seats = Arc::new(Seats::default());
        let mut janes: Vec<_> = (0..OWN).map(|_| seats.take("jane").unwrap()).collect();
        let refused = seats.take("jane").map(drop).unwrap_err().to_string();
        assert_eq!(refused, "jane has too many dashboards open; close one of the 10");
        janes.pop();
        janes.push(seats.take("jane").unwrap());
        let others: Vec<_> = (OWN..STREAMS).map(|n| seats.take(&format!("person-{n}")).unwrap()).collect();
        assert_eq!(seats.taken(), STREAMS);
        assert!(seats.take("joe").map(drop).unwrap_err().to_string().contains("too many dashboards are open"));
        drop((janes, others));
        assert!(seats.taken.lock().is_empty(), "who is gone is forgotten");
    }
}
