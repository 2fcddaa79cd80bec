"""Operations on users."""
