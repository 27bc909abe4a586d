mod chaos;
pub(crate) mod flock;
mod healing;
mod placing;
mod planning;
mod secrets;
mod updating;
mod wishes;
