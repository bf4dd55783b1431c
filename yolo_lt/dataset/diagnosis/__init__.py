"""What is wrong with a data set, and what surrounds its classes. numpy only; cv2 for the picture hash."""
