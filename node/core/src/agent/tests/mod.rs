mod chaos;
pub(crate) mod flock;
mod healing;
mod placing;
mod planning;
mod preempting;
mod secrets;
mod updating;
mod wishes;
