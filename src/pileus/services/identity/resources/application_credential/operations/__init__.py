"""Operations on application credentials, and what they mean for tokens."""
