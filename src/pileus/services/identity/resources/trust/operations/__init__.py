"""Operations on trusts, and what they mean for tokens."""
