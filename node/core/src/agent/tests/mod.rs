mod chaos;
mod flock;
mod healing;
mod placing;
mod updating;
