"""Operations on consumers and their tokens, how requests are proved, and what access tokens mean for tokens."""
