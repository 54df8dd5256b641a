"""What is hard beyond a new user: new items, and interests that drift."""

from metarec.challenges.drift import prequential, rmse_of_users
from metarec.challenges.forgetting import Decayed, KalmanFilter, Windowed
from metarec.challenges.new_items import item_histories, transposed

__all__ = ["item_histories", "transposed"]
__all__ += ["Decayed", "KalmanFilter", "Windowed"]
__all__ += ["prequential", "rmse_of_users"]
