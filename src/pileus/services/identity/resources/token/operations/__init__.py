"""Operations on tokens, and what makes them and finds them good or not."""
