"""Operations on projects and on their tags."""
