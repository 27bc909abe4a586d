//! The machines alone: rules of the scaler, of the meter, and what a forecast knows.

mod forecasts;
mod meters;
mod scaling;
